"""The HTML of the inspection's page, a Jinja template; it refers to nothing outside itself."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ found.repo_id }}: dataset check</title>
<style>
  :root { color-scheme: light; --line: #d8dde3; --soft: #f5f7f9; --text: #1c2733; --quiet: #5b6875; }
  body { font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; color: var(--text); margin: 0 auto; max-width: 1180px;
         padding: 20px 24px 48px; }
  h1 { font-size: 21px; margin: 0 0 4px; }
  h2 { font-size: 15px; margin: 26px 0 8px; }
  p { margin: 4px 0; }
  .quiet { color: var(--quiet); }
  .box { border-left: 4px solid; border-radius: 4px; padding: 8px 14px; margin: 12px 0; }
  .box ul { margin: 4px 0; padding-left: 18px; }
  .box li { overflow-wrap: anywhere; margin: 2px 0; }
  .good { border-color: #2f9e62; background: #edf8f1; }
  .warning { border-color: #d69a1d; background: #fdf6e5; }
  .error { border-color: #cc3b3b; background: #fcecec; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-size: 13px; }
  th, td { text-align: left; padding: 4px 12px 4px 8px; border-bottom: 1px solid var(--line); white-space: nowrap;
           font-variant-numeric: tabular-nums; }
  th { background: var(--soft); font-weight: 600; }
  .frame { border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px; margin: 12px 0; }
  .frame h3 { font-size: 13px; margin: 0 0 10px; }
  .views { display: flex; flex-wrap: wrap; gap: 14px 22px; }
  .pair { display: flex; gap: 6px; }
  figure { margin: 0; width: 236px; }
  figure .picture { position: relative; line-height: 0; }
  figure img { width: 100%; image-rendering: auto; border-radius: 3px; }
  figure svg { position: absolute; inset: 0; width: 100%; height: 100%; }
  figcaption { font-size: 12px; color: var(--quiet); margin-top: 3px; overflow-wrap: anywhere; }
  .legend { height: 8px; width: 90px; vertical-align: middle; border-radius: 2px; }
  dl { margin: 12px 0 0; font-size: 13px; }
  dt { margin-top: 6px; }
  dd { margin: 0 0 0 22px; color: var(--quiet); overflow-wrap: anywhere; }
  .chip { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px; }
</style>
</head>
<body>
<h1>{{ found.repo_id }}</h1>
<p>{{ summary }}</p>
<p class="quiet">{{ found.root }}</p>
<div class="box {{ 'error' if found.errors else 'good' }}">{{ verdict }}
{% if found.errors %}<ul>{% for text in found.errors %}<li>{{ text }}</li>{% endfor %}</ul>{% endif %}
</div>
{% if found.warnings %}
<div class="box warning">Warnings
<ul>{% for text in found.warnings %}<li>{{ text }}</li>{% endfor %}</ul></div>
{% endif %}
{% if frames %}
<h2>Frames</h2>
<p class="quiet">Depth as the generator learns it, each map by itself: near
<img class="legend" alt="from near to far" src="{{ legend }}"> far and invalid.
{% if found.prompts %}Questions are those that <code>gem</code> learns to answer.{% endif %}</p>
{% for frame in frames %}
<div class="frame">
<h3>Frame {{ frame.index }} <span class="quiet">(episode {{ frame.episode }}, {{ '%.2f' % frame.timestamp }} s)</span>:
{{ frame.task }}</h3>
<div class="views">
{% for view in frame.views %}
<div class="pair">
<figure><div class="picture"><img alt="{{ view.camera }}" src="{{ view.rgb }}">
<svg viewBox="0 0 {{ view.width }} {{ view.height }}">
{% for shape in view.shapes %}
{% if shape.corners|length == 4 %}
<rect x="{{ shape.corners[0] }}" y="{{ shape.corners[1] }}" width="{{ shape.corners[2] - shape.corners[0] }}"
 height="{{ shape.corners[3] - shape.corners[1] }}" fill="none" stroke="{{ shape.colour }}"
 stroke-width="{{ view.unit * 1.6 }}"/>
{% else %}
<circle cx="{{ shape.corners[0] }}" cy="{{ shape.corners[1] }}" r="{{ view.unit * 3.2 }}" fill="{{ shape.colour }}"
 stroke="#fff" stroke-width="{{ view.unit }}"/>
{% endif %}
{% if shape.label %}
<text x="{{ shape.at[0] }}" y="{{ shape.at[1] }}" text-anchor="{{ shape.anchor }}" font-size="{{ view.unit * 10 }}"
 font-family="system-ui, DejaVu Sans, sans-serif" fill="#fff" stroke="#111" stroke-width="{{ view.unit * 2 }}"
 stroke-linejoin="round" paint-order="stroke">{{ shape.label }}</text>
{% endif %}
{% endfor %}
</svg></div>
<figcaption>{{ view.camera }}</figcaption></figure>
{% if view.depth %}
<figure><div class="picture"><img alt="depth of {{ view.camera }}" src="{{ view.depth }}"></div>
<figcaption>{{ view.caption }}</figcaption></figure>
{% endif %}
</div>
{% endfor %}
</div>
{% if frame.exchanges %}
<dl>
{% for exchange in frame.exchanges %}
<dt><span class="chip" style="background: {{ exchange.colour }}"></span>{{ exchange.question }}
{% if exchange.camera %}<span class="quiet">({{ exchange.camera }})</span>{% endif %}</dt>
<dd>{{ exchange.answer }}</dd>
{% endfor %}
</dl>
{% endif %}
</div>
{% endfor %}
{% endif %}
{% for table in tables %}
<h2>{{ table.title }}</h2>
<div class="scroll"><table>
<tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% for note in table.notes %}<p class="quiet">{{ note }}</p>{% endfor %}
{% endfor %}
</body>
</html>
"""
