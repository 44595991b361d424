"""How good a policy is: generated depth beside true depth, and answers to questions."""
