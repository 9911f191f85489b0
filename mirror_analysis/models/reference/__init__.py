"""The bundled pair."""
