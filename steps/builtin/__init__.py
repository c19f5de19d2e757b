"""The certificate backend and the release sources that ship. They go through the same hooks as everybody's."""
