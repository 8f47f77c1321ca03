"""Tests against a real conda prefix, made offline from an interpreter of this machine."""
