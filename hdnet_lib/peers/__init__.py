"""The networks that the paper compares with, written anew, and checked against what their authors' code computes."""
