"""Everything that looks at a policy: fixed prompts, held-out rewards, suites of prompts."""
