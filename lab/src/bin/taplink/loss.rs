//! Which frames are lost: xorshift64, so that a run can be repeated.

pub struct Loss {
    permille: u64,
    state: u64,
}

impl Loss {
    pub fn new(permille: u64, seed: u64) -> Self {
        Self { permille, state: seed.max(1) }
    }

    pub fn strikes(&mut self) -> bool {
        if self.permille == 0 {
            return false;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % 1000 < self.permille
    }
}
