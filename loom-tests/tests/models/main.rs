//! The models, a file for each. See `framegate_loom_tests` for how they are run, and `--help` for how to
//! run some of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // All of this is test.

/// Declares the models' files and gathers what they hold.
macro_rules! models {
    ($($file:ident),* $(,)?) => {
        $(#[cfg(loom)] mod $file;)*

        #[cfg(loom)]
        fn models() -> Vec<&'static framegate_loom_tests::Model> {
            [$($file::MODELS),*].concat()
        }
    };
}

models! {
    m1a_spsc_wake_one,
    m1b_spsc_wake_two,
    m2_two_producers,
    m3_shutdown_vs_arm,
    m3b_shutdown_unarmed,
    m4_push_then_shutdown,
    m5_socket_and_ring,
    m6_back_pressure,
    m6b_back_pressure_to_guest,
    m6c_asking_for_room,
    m7_weakest_source,
    m7b_weakest_source_of_room,
    m7c_weakest_source_of_shutdown,
    m8_handle_lifetime,
    m9_two_shutdowns,
    m10_ring_storm,
    m10b_earned_rings,
    m11_shutdown_full_queue,
    m12_frame_leak,
    m13_panic,
    m14_budget,
    queue_order,
    queue_full_and_empty,
    queue_drop,
    pipe_end_after_last_byte,
    pipe_reset_frees_both,
    pipe_both_directions,
    pipe_reset_of_both,
    whole,
    halves,
}

#[cfg(loom)]
fn main() -> std::process::ExitCode {
    framegate_loom_tests::run(&models())
}

#[cfg(not(loom))]
fn main() {
    println!("the models run with RUSTFLAGS=\"--cfg loom\"");
}
