{{/* Names, labels and what all pods have in common. */}}

{{- define "headgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "headgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headgate.labels" -}}
{{ include "headgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "headgate.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "headgate.pod" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "headgate.container" -}}
image: {{ include "headgate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - secretRef:
      name: {{ required "existingSecret must name a Secret" .Values.existingSecret }}
{{- end }}

{{/* A Deployment of gateways or workers: (dict "root" $ "part" "gateway" "command" "serve") */}}
{{- define "headgate.deployment" -}}
{{- $root := .root }}
{{- $part := index $root.Values .part }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "headgate.name" $root }}-{{ .part }}
  labels:
    {{- include "headgate.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .part }}
spec:
  {{- if not $part.autoscaling.enabled }}
  replicas: {{ $part.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "headgate.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .part }}
  template:
    metadata:
      labels:
        {{- include "headgate.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .part }}
      annotations:
        checksum/config: {{ toYaml $root.Values.config | sha256sum }}
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ $root.Values.config.server.port | quote }}
        prometheus.io/path: /metrics
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "headgate.pod" $root | nindent 6 }}
      serviceAccountName: {{ include "headgate.name" $root }}
      # Waiting before the end, the 30 s that calls get, and what closing takes.
      terminationGracePeriodSeconds: {{ add $root.Values.shutdown.seconds 30 10 }}
      topologySpreadConstraints:
        {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ $key }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "headgate.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $.part }}
        {{- end }}
      containers:
        - name: headgate
          {{- include "headgate.container" $root | nindent 10 }}
          args: [{{ .command }}, --config, /etc/headgate/headgate.yaml]
          ports:
            - {name: http, containerPort: {{ $root.Values.config.server.port }}}
          # It is begun when its stores have answered once: seconds, and it gets a minute.
          startupProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 1
            timeoutSeconds: 3
            failureThreshold: 60
          # After that a store that is down is no reason to kill it, nor to send it nothing: it serves what can be served without,
          # and all others are as it is.
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          lifecycle:
            preStop:
              sleep: {seconds: {{ $root.Values.shutdown.seconds }}}
          resources: {{- toYaml $part.resources | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/headgate, readOnly: true}
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: config
          configMap: {name: {{ include "headgate.name" $root }}}
        - name: data
          emptyDir: {sizeLimit: {{ $part.dataSize }}}
        - name: tmp
          emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}
