"""The zoo: a small engine that is right, and programs that are wrong in one way each.

The suite proves itself on them: every case has to notice what it is for, and nothing in what is right.
`engine` is the model; `mutants` lists what is wrong with the others; `process` runs any of them for real.
"""
