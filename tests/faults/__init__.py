"""What clients were answered, kept by a recorder while servers die, and compared with what is there afterwards.

`records` says what is kept, `wire` are the clients, `load` what they do, `checker` compares. `cluster` are the servers, and
`plan` what is done to them: killed, paused, cut off (tests.services.isolation), their answers spoiled (`spoiled`,
`injected`), their disk filled. `warehouse` watches the objects of the object store, `holdings` asks the stores what is needed,
`blobs` compares. The checkers have tests of their own with planted defects.
"""
