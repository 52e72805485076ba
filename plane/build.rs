//! Links the program so that what runs of it lies together. See the crate `layout`.

fn main() -> std::io::Result<()> {
    layout::link("mycelial-plane", "ran.txt")
}
