"""Judging mail on its way in: who sent it, how its sender behaves, whether it is spam or carries a virus.

`values` has what is asked and answered, `stages` the Protocols that a filter implements, `gauntlet` runs them.
"""
