//! Makes the kernel steer pods' traffic as the snapshot says.
