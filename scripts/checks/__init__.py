"""Longer checks than the tests run by themselves; the tests run a small part of each."""
