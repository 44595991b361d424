"""GEM as LeRobot policies: `gem` (pre-training) and `gem_vla` (action)."""
