"""The life of one execution: identity, intent, decision, authorization, outcome."""
