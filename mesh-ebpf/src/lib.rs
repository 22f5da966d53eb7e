//! Empty: it lets Cargo see when the programs change.
#![no_std]
