"""The OpenAI API: requests, answers and errors as the `openai` client knows them."""
