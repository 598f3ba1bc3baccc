{{- define "lora-operator.name" -}}
{{- $name := ternary .Release.Name (printf "%s-lora-operator" .Release.Name) (contains "lora-operator" .Release.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "lora-operator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "lora-operator.name" .) -}}
{{- end -}}

{{- define "lora-operator.selectorLabels" -}}
app.kubernetes.io/name: lora-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lora-operator.labels" -}}
{{ include "lora-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* An image by registry, repository and digest or tag: dict "root" $ "image" .Values.x.image */ -}}
{{- define "lora-operator.image" -}}
{{- $name := printf "%s/%s" .root.Values.registry .image.repository -}}
{{- if .image.digest -}}{{ $name }}@{{ .image.digest }}{{- else -}}{{ $name }}:{{ .image.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{- define "lora-operator.pullSecretNames" -}}
{{- $names := list -}}
{{- range .Values.imagePullSecrets }}{{ $names = append $names .name }}{{ end -}}
{{- $names | join "," -}}
{{- end -}}

{{- /* What operator, agents and trainers all get: a list of env entries, as JSON. */ -}}
{{- define "lora-operator.sharedEnv" -}}
{{- $env := list -}}
{{- with .Values.hub.endpoint }}{{ $env = append $env (dict "name" "HF_ENDPOINT" "value" .) }}{{ end -}}
{{- if .Values.hub.disableXet }}{{ $env = append $env (dict "name" "HF_HUB_DISABLE_XET" "value" "1") }}{{ end -}}
{{- with .Values.proxy.httpProxy }}{{ $env = append $env (dict "name" "HTTP_PROXY" "value" .) }}{{ end -}}
{{- with .Values.proxy.httpsProxy }}{{ $env = append $env (dict "name" "HTTPS_PROXY" "value" .) }}{{ end -}}
{{- with .Values.caBundle }}{{ $env = append $env (dict "name" "LORA_CA_BUNDLE" "value" .) }}{{ end -}}
{{- if or .Values.proxy.httpProxy .Values.proxy.httpsProxy -}}
{{- $ours := list "localhost" "127.0.0.1" "::1" ".svc" ".svc.cluster.local" "$(KUBERNETES_SERVICE_HOST)" -}}
{{- $direct := concat (compact (list .Values.proxy.noProxy)) $ours | join "," -}}
{{- $env = append $env (dict "name" "NO_PROXY" "value" $direct) -}}
{{- end -}}
{{- $env | toJson -}}
{{- end -}}

{{- /* A value that holds env entries for other pods: kubelet expands $(NAME) there, not in the operator's own pod. */ -}}
{{- define "lora-operator.passedOn" -}}
{{- . | replace "$(" "$$(" | quote -}}
{{- end -}}

{{- /* What the operator needs in each namespace that it watches. */ -}}
{{- define "lora-operator.rules" -}}
- {apiGroups: [lora-operator.io], resources: [loraengines], verbs: [list, watch, patch]}
# A training job makes the LoRAAdapter that it was asked for.
- {apiGroups: [lora-operator.io], resources: [loraadapters], verbs: [get, list, watch, create, patch]}
# One that is over goes when its time is up.
- {apiGroups: [lora-operator.io], resources: [loratrainingjobs], verbs: [list, watch, delete]}
- apiGroups: [lora-operator.io]
  resources: [loraengines/status, loraadapters/status, loratrainingjobs/status]
  verbs: [patch]
# A Job blocks its training job's deletion in the foreground; OpenShift asks for this right then.
- {apiGroups: [lora-operator.io], resources: [loratrainingjobs/finalizers], verbs: [update]}
# Adopting is one patch of the engine's Deployment; docs/operations.md lists the fields.
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
# A Service called vllm makes kubelet inject a variable that keeps vLLM from starting.
- {apiGroups: [""], resources: [services], verbs: [get]}
# The labels of a namespace decide whether an engine takes its adapters.
- {apiGroups: [""], resources: [namespaces], verbs: [get]}
# The manifest's shards, frozen specs, and the data sets that training jobs name.
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, patch, delete]}
# One Secret an engine, and the Hub tokens that objects name. Never listed.
- {apiGroups: [""], resources: [secrets], verbs: [get, create, patch, delete]}
- {apiGroups: [batch], resources: [jobs], verbs: [list, watch, create, patch]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}
{{- end -}}

{{- /* What uninstalling needs in each namespace that the operator watched. */ -}}
{{- define "lora-operator.uninstallRules" -}}
- {apiGroups: [lora-operator.io], resources: [loraengines, loraadapters, loratrainingjobs], verbs: [list, patch]}
{{- end -}}

{{- define "lora-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "lora-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
