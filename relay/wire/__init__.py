"""WebSocket endpoints of both roles: the phone's server side and the model's client side.

The frames of a call pass here fifty times a second in each direction, so the two roles share one way of
reading and writing (`connection`), whose frame splitter (`frames`) recognises the one kind of frame that
matters and leaves everything else to the protocol state machine of the websockets library.
"""
