"""What `lerobot-gem-preflight` looks at before an arm is given to a policy: nothing here moves it."""
