"""What is learnt of data, for people to look at before anything is spent: single records, odd ones, and the figures of all."""
