"""Environments made to order: real package managers, small packages, no network but where marked.
"""
