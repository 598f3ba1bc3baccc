{{- define "lora-operator.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
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

{{- /* What operator, agents and trainers all get: a list of env entries, as JSON. */ -}}
{{- define "lora-operator.sharedEnv" -}}
{{- $env := list -}}
{{- with .Values.hub.endpoint }}{{ $env = append $env (dict "name" "HF_ENDPOINT" "value" .) }}{{ end -}}
{{- if .Values.hub.disableXet }}{{ $env = append $env (dict "name" "HF_HUB_DISABLE_XET" "value" "1") }}{{ end -}}
{{- with .Values.proxy.httpProxy }}{{ $env = append $env (dict "name" "HTTP_PROXY" "value" .) }}{{ end -}}
{{- with .Values.proxy.httpsProxy }}{{ $env = append $env (dict "name" "HTTPS_PROXY" "value" .) }}{{ end -}}
{{- with .Values.proxy.noProxy }}{{ $env = append $env (dict "name" "NO_PROXY" "value" .) }}{{ end -}}
{{- $env | toJson -}}
{{- end -}}
