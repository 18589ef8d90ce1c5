//! A stage's capabilities in the terms of the `caps` crate.

use crate::model::Capability;

/// The same capability as the `caps` crate has it.
pub(super) const fn kernel_capability(capability: Capability) -> caps::Capability {
    match capability {
        Capability::Chown => caps::Capability::CAP_CHOWN,
        Capability::DacOverride => caps::Capability::CAP_DAC_OVERRIDE,
        Capability::Fowner => caps::Capability::CAP_FOWNER,
        Capability::Fsetid => caps::Capability::CAP_FSETID,
        Capability::Kill => caps::Capability::CAP_KILL,
        Capability::Setgid => caps::Capability::CAP_SETGID,
        Capability::Setuid => caps::Capability::CAP_SETUID,
        Capability::SysChroot => caps::Capability::CAP_SYS_CHROOT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_the_kernels_name() {
        for capability in Capability::ALL {
            let name = format!("CAP_{}", capability.as_str().replace('-', "_").to_uppercase());
            assert_eq!(kernel_capability(capability).to_string(), name);
        }
    }
}
