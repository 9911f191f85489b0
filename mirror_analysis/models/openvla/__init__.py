"""OpenVLA: a vision-language model that writes actions."""
