//! Plain (level-1) servers: no acknowledgements, no cursors, no tombstones.
//!
//! | file | story |
//! | --- | --- |
//! | `pull` | reading a collection whose rows move while it is read |

mod pull;
