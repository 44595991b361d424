"""Shows LIBERO's own demonstrations again, with depth."""

from lerobot_gem.data.libero_demos.attempt_files import Attempt, Recording
from lerobot_gem.data.libero_demos.attempts import Recorder, scene_of
from lerobot_gem.data.libero_demos.collection_config import LiberoDemosConfig
from lerobot_gem.data.libero_demos.source_files import moving_frames, read_demonstration, source_file
from lerobot_gem.simulation.recorded_models import RecordedModel
from lerobot_gem.simulation.scripted_policies import SCRIPTED_POLICIES, make_scripted_policy


def replay_demonstration(config: LiberoDemosConfig, attempt: Attempt) -> Recording | None:
    """Show a recorded demonstration again; None when no state of it passes LIBERO's success test.

    Every state is loaded and drawn, nothing is simulated. Actions that are executed again lead elsewhere in another
    version of MuJoCo, and where frames are left out: OpenVLA executes them (`regenerate_libero_dataset.py`), and 1,693 of
    the 2,000 demonstrations of four suites succeeded again (`HuggingFaceVLA/libero`, meta/info.json).

    Args:
        config: Of the collection; `source` is set.
        attempt: Its number is the demonstration's place in the file.

    Raises:
        FileNotFoundError: There is no file of the task.
        ValueError: It is no file of LIBERO's, or was recorded with another model.
    """
    assert config.source is not None
    scene = scene_of(config, attempt)
    recorded = read_demonstration(source_file(config.source, config.suite, scene.task), attempt.number)
    model = RecordedModel(recorded.model, recorded.name)
    model.check(scene, recorded.states.shape[1])
    model.place_fixtures(scene)
    # Success held for ten frames when it was recorded. A contact of micrometres that the test asks for may be lost in one.
    succeeds = False
    for state in reversed(recorded.states):
        scene.show(state)
        if scene.success:
            succeeds = True
            break
    if not succeeds:
        return None
    policy = make_scripted_policy(scene) if config.suite in SCRIPTED_POLICIES else None
    recorder = Recorder(config, attempt, scene, policy)
    for index in moving_frames(recorded.actions) if config.drop_noops else range(len(recorded.actions)):
        scene.show(recorded.states[index])
        recorder.record(recorded.actions[index])
    return recorder.demonstration()
