"""What subscriptions were worth, and when: each change is kept, with its value under each definition of MRR."""
