//! JSON of the node proxy's `/config_dump` (control-and-operations 6.3).
