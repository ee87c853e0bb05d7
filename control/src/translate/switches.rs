//! The reference's environment switches that change records. The program's configuration fills them in.

/// Switches with the reference's names; [`Switches::default`] is the reference's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Switches {
    /// `CLUSTER_ID`
    pub(crate) cluster_id: String,
    /// `--domain`
    pub(crate) cluster_domain: String,
    /// `POD_NAMESPACE`: the namespace this server stands for.
    pub(crate) system_namespace: String,
    /// `REVISION`: objects labelled for another one are not used; empty uses all.
    pub(crate) revision: String,
    /// `PILOT_ENABLE_SERVICEENTRY_SELECT_PODS`
    pub(crate) service_entries_select_pods: bool,
    /// `PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES`
    pub(crate) services_select_workload_entries: bool,
    /// `PILOT_ENABLE_IP_AUTOALLOCATE`
    pub(crate) allocate_addresses: bool,
    /// `PILOT_AUTO_ALLOW_WAYPOINT_POLICY`
    pub(crate) allow_waypoints: bool,
    /// `AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`
    pub(crate) dry_run_policies: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            cluster_id: "Kubernetes".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            system_namespace: "istio-system".to_owned(),
            revision: "default".to_owned(),
            service_entries_select_pods: true,
            services_select_workload_entries: true,
            allocate_addresses: true,
            allow_waypoints: false,
            dry_run_policies: false,
        }
    }
}
