"""LIBERO's scenes in robosuite and MuJoCo; knows nothing of GEM."""
