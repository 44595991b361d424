"""LIBERO's scenes in robosuite and an SO-101 in MuJoCo; knows nothing of GEM."""
