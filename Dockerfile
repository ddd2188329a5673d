# The pipeline with all it needs, as in the lock file: docker build --tag classifier-pipeline .
FROM python:3.11-slim
RUN pip install --no-cache-dir 'uv<1'
# The image has no git, and MLflow would report that at length.
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_NO_CACHE=1 PATH=/opt/venv/bin:$PATH GIT_PYTHON_REFRESH=quiet
WORKDIR /opt/classifier-pipeline
# The packages come first: they are several GB, and change less often than the code.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-install-project
COPY . .
RUN uv sync --locked && useradd --create-home --uid 1000 user && install --directory --owner=user /work
USER user
# Runs are kept here, unless MLFLOW_TRACKING_URI names a server: mount a folder.
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=1m CMD ["python", "-m", "pipeline", "status"]
ENTRYPOINT ["python", "-m", "pipeline"]
CMD ["--help"]
