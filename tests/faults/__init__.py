"""What clients were answered, kept by a recorder while servers die, and compared with what is there afterwards.

`records` says what is kept, `wire` are the clients, `load` what they do, `checker` compares; `nodes` are the mail
processes and `plan` what is done to them and to their stores. The checker has tests of its own with planted defects.
"""
