//! The tree keeps its shape: dependency edges and file sizes.
