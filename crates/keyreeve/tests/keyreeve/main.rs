mod fleet;
mod requirements;
