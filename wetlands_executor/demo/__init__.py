"""The demonstration.

Two environments that cannot be one, used side by side from a program that has neither's packages.

``recipes`` lists the pictures, ``environments`` has the two environments made, ``pipeline`` sends
the work to them, ``report`` writes what came out, ``command`` ties these together for the command
line. The folder ``work`` holds what runs *inside* the environments; nothing here imports it. Uses
the public interface of the library only.
"""
