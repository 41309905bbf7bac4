"""The URLs of the example."""

from django.urls import path

from project import views

urlpatterns = [
    path("", views.hello),
    path("async", views.hello_async),
    path("numbers", views.numbers),
    path("form", views.form),
    path("upload", views.upload),
]
