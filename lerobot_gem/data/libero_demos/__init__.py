"""`lerobot-gem-libero-demos`: demonstrations, scenes and questions from the simulator as a LeRobotDataset.

The way of a frame:

1. `collecting` decides which attempts are needed and gives each to a worker.
2. `attempts` simulates one. For each frame the scripted policy says what to do, the scene draws what the cameras see, and
   `questions.recorder` notes what is true, from which it makes candidates for questions when the attempt is over.
3. `attempt_files` keeps the attempt in a folder of its own.
4. `dataset_writing` makes the dataset of all folders, in their order, and `questions.writing` chooses among the candidates.
"""
