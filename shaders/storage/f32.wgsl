// Storage type f32: what lies in memory is what is computed with.

alias Stored = Unit;

fn load(stored: Stored) -> Unit {
    return stored;
}

fn store(value: Unit) -> Stored {
    return value;
}
