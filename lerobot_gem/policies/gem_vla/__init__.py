"""The policy `gem_vla`: stage 4, and acting."""
