"""Checks built manifests.

    policy.py FILE…                            checks the manifests
    policy.py --self-test                      checks the rules
    policy.py --run PROGRAM CREDENTIALS FILE…  runs the proxy to check its variables in each manifest

Every pod must meet Pod Security "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/), and every pod with
the proxy must meet the proxy's needs.
"""
import copy, subprocess, sys, tempfile
import yaml

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
           "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
           "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
           "net.ipv4.tcp_keepalive_probes"}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
LABEL = ("finicity-proxy", "sidecar")
# The values of credentials.source that are secret stores.
STORES = {"aws", "vault", "gcp", "azure"}


def pod_of(document):
    """The pod spec of a workload, or None if the document creates no pods."""
    spec = document.get("spec") or {}
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template", {}).get("spec")


def containers(pod):
    return pod.get("initContainers", []) + pod.get("containers", []) + pod.get("ephemeralContainers", [])


def restricted(pod):
    """The violations of the Pod Security Standard "restricted" in `pod`, as of Kubernetes 1.36."""
    whole = pod.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    for sysctl in whole.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for where, context in [("pod", whole)] + [(c["name"], c.get("securityContext") or {}) for c in containers(pod)]:
        selinux = context.get("seLinuxOptions") or {}
        if selinux.get("type") not in SELINUX or selinux.get("user") or selinux.get("role"):
            yield f"{where}: seLinuxOptions"
        if (context.get("appArmorProfile") or {}).get("type") not in (None, "RuntimeDefault", "Localhost"):
            yield f"{where}: appArmorProfile"
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            yield f"{where}: hostProcess"
        if context.get("runAsUser") == 0:
            yield f"{where}: runAsUser 0"
    for container in containers(pod):
        context, name = container.get("securityContext") or {}, container["name"]
        capabilities = context.get("capabilities") or {}
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities"
        if context.get("privileged"):
            yield f"{name}: privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if context.get("procMount") not in (None, "Default"):
            yield f"{name}: procMount"
        if not context.get("runAsNonRoot", whole.get("runAsNonRoot")):
            yield f"{name}: runAsNonRoot"
        profile = context.get("seccompProfile", whole.get("seccompProfile")) or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"
        handlers = [container.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += list((container.get("lifecycle") or {}).values())
        if any((handler.get(kind) or {}).get("host") for handler in handlers for kind in ("httpGet", "tcpSocket")):
            yield f"{name}: a probe with another host"


def proxy_of(pod):
    return next((container for container in containers(pod) if container["name"] == "finicity-proxy"), None)


def workload_needs(document):
    """What a workload with the proxy lacks to keep failed authentications with a wrong Secret few: five lock the vendor account."""
    kind, spec = document["kind"], document.get("spec") or {}
    if kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if kind in ("Job", "CronJob"):
        if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            yield "restartPolicy OnFailure: with Never, each retry is a new pod, and each pod costs one more rejection"
        if any((spec.get(key) or 1) != 1 for key in ("parallelism", "completions")):
            yield "one pod"
        if not spec.get("activeDeadlineSeconds"):
            yield "activeDeadlineSeconds: a startup that fails must fail the Job"
    if kind == "Deployment" and spec.get("replicas", 1) > 1:
        update = (spec.get("strategy") or {}).get("rollingUpdate") or {}
        if sorted([str(update.get("maxSurge")), str(update.get("maxUnavailable"))]) != ["0", "1"]:
            yield "a strategy that starts one new pod at a time"


def source_of(proxy):
    """The source of the proxy's credentials."""
    return next((v.get("value") for v in proxy.get("env", []) if v["name"] == "FINICITY__CREDENTIALS__SOURCE"), None)


def needs(pod):
    """What a pod with the proxy lacks."""
    proxy = proxy_of(pod)
    context, limits = proxy.get("securityContext") or {}, (proxy.get("resources") or {}).get("limits") or {}
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = {mount["mountPath"]: mount for mount in proxy.get("volumeMounts", [])}
    if not context.get("readOnlyRootFilesystem"):
        yield "readOnlyRootFilesystem"
    if context.get("runAsUser") != 65532:
        yield "runAsUser"
    if "memory" not in limits or "cpu" in limits:
        yield "a memory limit, and no CPU limit"
    for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez")):
        if ((proxy.get(probe) or {}).get("httpGet") or {}).get("path") != path:
            yield probe
    startup = proxy.get("startupProbe") or {}
    if startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) < 600:
        yield "a startup probe that allows ten minutes, to correct a wrong Secret"
    if {"name": "FINICITY__STARTUP__FAIL_ON_REJECTION", "value": "true"} not in proxy.get("env", []):
        yield "FINICITY__STARTUP__FAIL_ON_REJECTION"
    if "finicity-ops" not in [port.get("name") for port in proxy.get("ports", [])]:
        yield "a port named finicity-ops, which Prometheus selects"
    if any("subPath" in mount or "subPathExpr" in mount for mount in proxy.get("volumeMounts", [])):
        yield "no subPath: it does not follow changes of the Secret"
    secret = volumes.get((mounts.get("/etc/finicity-proxy/credentials") or {}).get("name"), {}).get("secret") or {}
    if source_of(proxy) in STORES:
        if "finicity-credentials" in volumes or secret:
            yield "no Secret: its credentials are in a store"
        if pod.get("serviceAccountName", "default") == "default":
            yield "its own service account, to read the store"
    elif secret.get("defaultMode") != 0o444:
        yield "the Secret, with a mode that lets the proxy read it"
    state = volumes.get((mounts.get("/var/lib/finicity-proxy") or {}).get("name"), {})
    if not {"emptyDir", "persistentVolumeClaim"} & set(state):
        yield "a volume for its state"
    run = volumes.get((mounts.get("/run/finicity-proxy") or {}).get("name"), {})
    if "emptyDir" not in run:
        yield "a volume for its socket"
    if any((variable.get("name") or "").startswith("FINICITY_CLIENT") for variable in proxy.get("env", [])):
        yield "credentials in files instead of variables"
    others = [container for container in containers(pod) if container["name"] not in ("finicity-proxy", "finicity-sandbox")]
    private = {"finicity-credentials", state.get("name"), run.get("name")}
    # Pod tokens, with which the proxy logs in to a secret store.
    private |= {mount["name"] for mount in mounts.values() if "projected" in volumes.get(mount["name"], {})}
    if any(mount["name"] in private for container in others for mount in container.get("volumeMounts", [])):
        yield "credentials, state and socket that only the proxy mounts"
    ndots = [option.get("value") for option in (pod.get("dnsConfig") or {}).get("options", []) if option.get("name") == "ndots"]
    if not others and ndots != ["1"]:
        yield "dnsConfig with ndots 1: otherwise each lookup of the API's name takes eight queries"
    if others and pod.get("dnsConfig"):
        yield "no dnsConfig: it would change name lookups of the application"
    ours = ("finicity-proxy", "finicity-sandbox")
    if proxy.get("restartPolicy") == "Always":
        names = [container["name"] for container in pod["initContainers"]]
        if any(name not in ours for name in names[:names.index("finicity-proxy")]):
            yield "the sidecar before the other init containers"
        if "finicity-sandbox" in names[names.index("finicity-proxy"):]:
            yield "the sandbox before the proxy, which sends its first token request there: list the components sidecar, large, sandbox"
        if "readinessProbe" in proxy:
            yield "no readiness probe: it would apply to the whole pod"
    elif others:
        hook = ((proxy.get("lifecycle") or {}).get("postStart") or {}).get("exec") or {}
        if pod["containers"][0] is not proxy or hook.get("command") != ["finicity-proxy", "wait", "startup", "--timeout", "10m"]:
            yield "the proxy as the first container, with a postStart hook that delays the others until the startup probe passes"


def problems(documents):
    sidecars = []
    for document in documents:
        pod = pod_of(document)
        labels = document["metadata"].get("labels") or {}
        where = f"{document['kind']}/{document['metadata']['name']}"
        wanted = labels.get(LABEL[0]) == LABEL[1]
        if pod is None:
            continue
        yield from (f"{where} is not restricted: {problem}" for problem in restricted(pod))
        proxy = proxy_of(pod)
        if proxy is None and wanted:
            yield f"{where} has no sidecar"
        if proxy is not None:
            yield from (f"{where} needs {problem}" for problem in [*needs(pod), *workload_needs(document)])
            if proxy.get("restartPolicy"):
                sidecars.append((where, proxy))
            if others := [c for c in pod["containers"] if c is not proxy]:
                if not wanted:
                    yield f"{where} has a sidecar without the label"
                if not all("image" in container for container in others):
                    yield f"{where}: a container was lost"
    yield from (f"the sidecar of {where} differs from that of {sidecars[0][0]}" for where, proxy in sidecars if proxy != sidecars[0][1])


def load(path):
    with open(path) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def variables(path):
    for document in load(path):
        if (pod := pod_of(document)) and (proxy := proxy_of(pod)):
            found = {}
            for other in load(path):
                if other["kind"] == "ConfigMap" and other["metadata"]["name"] == "finicity-proxy":
                    found.update(other["data"])
            # `env` overrides `envFrom`.
            found.update({v["name"]: v["value"] for v in proxy.get("env", []) if "value" in v})
            yield found


def run_check(program, credentials, paths):
    """Runs the proxy to check that it accepts every variable and its value."""
    for path in paths:
        for found in variables(path):
            # The mounted files do not exist on this machine.
            found |= {"FINICITY__CREDENTIALS__DIR": credentials, "FINICITY__UPSTREAM__CA_FILE": ""}
            with tempfile.TemporaryDirectory() as volume:
                for mount in ("/var/lib/finicity-proxy", "/run/finicity-proxy"):
                    found = {name: value.replace(mount, volume) for name, value in found.items()}
                result = subprocess.run([program, "check"], env=found, capture_output=True, text=True)
            if result.returncode:
                sys.exit(f"{path}: the proxy rejects its variables:\n{result.stderr}")


GOOD = {"kind": "Deployment", "metadata": {"name": "good", "labels": {"finicity-proxy": "sidecar"}}, "spec": {"template": {"spec": {
    "volumes": [{"name": "finicity-credentials", "secret": {"defaultMode": 0o444}}, {"name": "state", "emptyDir": {}},
                {"name": "run", "emptyDir": {}}],
    "initContainers": [{
        "name": "finicity-proxy", "restartPolicy": "Always", "resources": {"limits": {"memory": "64Mi"}},
        "env": [{"name": "FINICITY__STARTUP__FAIL_ON_REJECTION", "value": "true"}],
        "startupProbe": {"httpGet": {"path": "/startupz"}, "periodSeconds": 1, "failureThreshold": 600},
        "livenessProbe": {"httpGet": {"path": "/livez"}},
        "ports": [{"name": "finicity-ops", "containerPort": 3465}],
        "volumeMounts": [{"name": "finicity-credentials", "mountPath": "/etc/finicity-proxy/credentials"},
                         {"name": "state", "mountPath": "/var/lib/finicity-proxy"},
                         {"name": "run", "mountPath": "/run/finicity-proxy"}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "readOnlyRootFilesystem": True,
                            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"}}}],
    "containers": [{"name": "app", "image": "app", "securityContext": {
        "runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}}}]}}}}
GOOD_ENV = GOOD["spec"]["template"]["spec"]["initContainers"][0]["env"][0]
GOOD_STORE = copy.deepcopy(GOOD)
GOOD_STORE_POD = GOOD_STORE["spec"]["template"]["spec"]
GOOD_STORE_POD["serviceAccountName"] = "app"
GOOD_STORE_POD["initContainers"][0]["env"].append({"name": "FINICITY__CREDENTIALS__SOURCE", "value": "aws"})
del GOOD_STORE_POD["initContainers"][0]["volumeMounts"][0], GOOD_STORE_POD["volumes"][0]
GOOD_JOB = copy.deepcopy(GOOD) | {"kind": "Job"}
GOOD_JOB["spec"]["activeDeadlineSeconds"] = 900
GOOD_JOB["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
GOOD_CRONJOB = {**GOOD_JOB, "kind": "CronJob", "spec": {"jobTemplate": {"spec": GOOD_JOB["spec"]}}}
GOOD_GATEWAY = copy.deepcopy(GOOD)
GOOD_GATEWAY["spec"]["template"]["spec"] |= {
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}, "initContainers": [],
    "containers": [{key: value for key, value in GOOD["spec"]["template"]["spec"]["initContainers"][0].items() if key != "restartPolicy"}]}
POD, PROXY, APP = ("spec", "template", "spec"), ("spec", "template", "spec", "initContainers", 0), ("spec", "template", "spec", "containers", 0)
# The credentials are in a secret store, and the proxy logs in with a pod token.
GOOD_VAULT = copy.deepcopy(GOOD_STORE)
GOOD_VAULT_POD = GOOD_VAULT["spec"]["template"]["spec"]
GOOD_VAULT_POD["initContainers"][0]["env"][1]["value"] = "vault"
GOOD_VAULT_POD["volumes"].append({"name": "vault-token", "projected": {}})
GOOD_VAULT_POD["initContainers"][0]["volumeMounts"].append({"name": "vault-token", "mountPath": "/var/run/secrets/vault"})
# Each makes a good pod bad in one way. `None` removes the value.
BAD = [
    (POD + ("hostNetwork",), True), (POD + ("hostPID",), True), (POD + ("hostIPC",), True),
    (POD + ("volumes", 1), {"name": "state", "hostPath": {"path": "/"}}),
    (POD + ("securityContext",), {"sysctls": [{"name": "kernel.msgmax"}]}),
    (POD + ("securityContext",), {"runAsUser": 0}), (POD + ("securityContext",), {"seLinuxOptions": {"user": "u"}}),
    (POD + ("securityContext",), {"appArmorProfile": {"type": "Unconfined"}}),
    (POD + ("securityContext",), {"windowsOptions": {"hostProcess": True}}),
    (APP + ("securityContext", "privileged"), True), (APP + ("securityContext", "allowPrivilegeEscalation"), None),
    (APP + ("securityContext", "capabilities"), None), (APP + ("securityContext", "capabilities", "add"), ["NET_RAW"]),
    (APP + ("securityContext", "procMount"), "Unmasked"), (APP + ("securityContext", "runAsNonRoot"), None),
    (APP + ("securityContext", "runAsUser"), 0), (APP + ("securityContext", "seccompProfile"), None),
    (APP + ("ports",), [{"hostPort": 80}]), (APP + ("livenessProbe",), {"httpGet": {"host": "other"}}),
    (APP + ("lifecycle",), {"preStop": {"tcpSocket": {"host": "other"}}}),
    (PROXY + ("securityContext", "readOnlyRootFilesystem"), None), (PROXY + ("securityContext", "runAsUser"), 1000),
    (PROXY + ("resources",), None), (PROXY + ("resources", "limits", "cpu"), "1"), (PROXY + ("startupProbe",), None),
    (PROXY + ("livenessProbe",), {"httpGet": {"path": "/readyz"}}), (PROXY + ("readinessProbe",), {}),
    (PROXY + ("ports", 0, "name"), "ops"), (PROXY + ("volumeMounts", 0, "subPath"), "app_key"), (PROXY + ("volumeMounts",), []),
    (PROXY + ("env",), [GOOD_ENV, {"name": "FINICITY_CLIENT_SECRET", "value": "x"}]), (PROXY + ("env",), []),
    (PROXY + ("env", 0, "value"), "false"), (PROXY + ("startupProbe", "failureThreshold"), 599),
    (PROXY + ("startupProbe", "failureThreshold"), None), (POD + ("volumes", 2), {"name": "run", "configMap": {}}),
    (PROXY + ("volumeMounts", 2), {"name": "run", "mountPath": "/run"}), (APP + ("volumeMounts",), [{"name": "run", "mountPath": "/x"}]),
    (APP + ("volumeMounts",), [{"name": "state", "mountPath": "/x"}]), (("spec", "replicas"), 2),
    (("spec",), {**GOOD["spec"], "replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}}),
    (("spec",), {**GOOD["spec"], "replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}),
    (PROXY + ("restartPolicy",), None),
    (POD + ("volumes", 0, "secret", "defaultMode"), 0o440), (POD + ("volumes", 1), {"name": "state", "configMap": {}}),
    (PROXY + ("name",), "other"), (("metadata", "labels"), None), (APP + ("image",), None),
    (POD + ("dnsConfig",), {"options": [{"name": "ndots", "value": "1"}]}),
    (APP + ("volumeMounts",), [{"name": "finicity-credentials", "mountPath": "/x"}]),
    (POD + ("initContainers",), [{**GOOD["spec"]["template"]["spec"]["containers"][0], "name": "first"},
                                 GOOD["spec"]["template"]["spec"]["initContainers"][0]]),
    (POD + ("initContainers",), [GOOD["spec"]["template"]["spec"]["initContainers"][0],
                                 {**GOOD["spec"]["template"]["spec"]["containers"][0], "name": "finicity-sandbox"}]),
]
# The same for a pod with its credentials in a store.
BAD_STORES = [(POD + ("serviceAccountName",), None), (POD + ("serviceAccountName",), "default"),
              (POD + ("volumes", 0), {"name": "finicity-credentials", "secret": {"defaultMode": 0o444}}),
              (PROXY + ("env", 1, "value"), "dir")]
# The same for a pod that logs in to its store with a pod token.
BAD_VAULTS = [(APP + ("volumeMounts",), [{"name": "vault-token", "mountPath": "/x"}]),
              (PROXY + ("volumeMounts", 0), {"name": "vault-token", "mountPath": "/var/lib/finicity-proxy"})]
# The same for Jobs.
BAD_JOBS = [(POD + ("restartPolicy",), "Never"), (POD + ("restartPolicy",), None), (("spec", "activeDeadlineSeconds"), None),
            (("spec", "parallelism"), 2), (("spec", "completions"), 5)]
# The same for a pod with only the proxy.
BAD_GATEWAYS = [(POD + ("dnsConfig",), None), (POD + ("dnsConfig", "options", 0, "value"), "5"), (POD + ("dnsConfig", "options"), [])]
CRON = ("spec", "jobTemplate")


def self_test():
    several = copy.deepcopy(GOOD)
    several["spec"] |= {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    for good in (GOOD, GOOD_STORE, GOOD_VAULT, GOOD_JOB, GOOD_CRONJOB, GOOD_GATEWAY, several):
        assert not list(problems([good])), list(problems([good]))
    cases = [(GOOD, *case) for case in BAD] + [(GOOD_JOB, *case) for case in BAD_JOBS]
    cases += [(GOOD_GATEWAY, *case) for case in BAD_GATEWAYS]
    cases += [(GOOD_STORE, *case) for case in BAD_STORES] + [(GOOD_VAULT, *case) for case in BAD_VAULTS]
    cases += [(GOOD_CRONJOB, CRON + path, value) for path, value in BAD_JOBS]
    for good, path, value in cases:
        bad = copy.deepcopy(good)
        place = bad
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        assert list(problems([bad])), f"not rejected: {path} = {value}"
    print(f"ok: {len(cases)} workloads that break a rule are rejected")


if __name__ == "__main__":
    if sys.argv[1] == "--self-test":
        self_test()
    elif sys.argv[1] == "--run":
        run_check(*sys.argv[2:4], sys.argv[4:])
    else:
        found = [f"{path}: {problem}" for path in sys.argv[1:] for problem in problems(load(path))]
        sys.exit("\n".join(found) or 0)
