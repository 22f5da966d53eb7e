{{- define "mesh.labels" -}}
app.kubernetes.io/name: mesh-node
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "mesh.exempt" -}}
{{ append .Values.exemptNamespaces .Release.Namespace | uniq | join "," }}
{{- end }}

{{- define "mesh.edgeNamespaces" -}}
{{- $namespaces := list }}
{{- range .Values.edge.certificates }}
{{- $namespaces = append $namespaces .namespace }}
{{- end }}
{{- $namespaces | uniq | sortAlpha | toJson }}
{{- end }}

{{- define "mesh.certificates" -}}
{{- $names := list }}
{{- range .Values.edge.certificates }}
{{- $names = append $names (printf "%s/%s" .namespace .name) }}
{{- end }}
{{- $names | uniq | join "," }}
{{- end }}
