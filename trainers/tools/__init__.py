"""What is done with finished generators: scores, pairs, studies of mixes, sharing a GPU."""
