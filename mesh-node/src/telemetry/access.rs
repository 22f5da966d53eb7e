//! One record for each connection that ended or was refused.
