"""Built-in prompts for the demo: everyday programming questions, as a chat."""

from __future__ import annotations

from speculation.protocol.messages import ChatMessage, Prompt

QUESTIONS = (
    "Palindromes: write a Python function that checks whether a string is a palindrome, ignoring case and punctuation.",
    "A stack: write a Python class for a stack with push, pop, peek and len, with docstrings.",
    "Merging: write a Python function that merges two sorted lists into one sorted list.",
    "Fibonacci: write a Python function that returns the n-th number without recursion, and show how to call it.",
    "Word count: write a Python function that counts the words in a text file and returns the ten most common.",
    "SQL: write a query that lists the three customers with the highest total of orders in 2024, and explain it.",
)

PROMPTS: tuple[Prompt, ...] = tuple(Prompt(messages=(ChatMessage("user", question),)) for question in QUESTIONS)
