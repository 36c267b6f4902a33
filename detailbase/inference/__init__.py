"""What a trained network is asked: masks for phrases, their scores and pictures."""
