"""What tests share: Windows programs under Wine, compiled targets, real programs."""
