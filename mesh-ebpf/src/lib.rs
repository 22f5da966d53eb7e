#![no_std]
//! Empty: it lets Cargo see when the programs change.
