{{- define "mesh.labels" -}}
app.kubernetes.io/name: mesh-node
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "mesh.exempt" -}}
{{ append .Values.exemptNamespaces .Release.Namespace | uniq | join "," }}
{{- end }}
