//! Kubernetes objects of the twin.
