"""What a trained policy does beyond one forward pass: answer questions, continue the chunk before."""
